"""The state of a running lab: facts that are gathered once, checks that judge them, `status` and `verify`."""
