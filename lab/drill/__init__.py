"""Failure drills: break a running lab on purpose, measure from outside what users notice, repair it."""
