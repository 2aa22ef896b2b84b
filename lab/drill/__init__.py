"""Failure drills: break a running lab on purpose, watch from outside what users would notice, heal it."""
