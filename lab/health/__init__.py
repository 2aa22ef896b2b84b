"""How a running lab is: facts asked once, checks that judge them, `status` and `verify`."""
