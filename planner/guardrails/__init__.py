"""The limits that a stack must keep: what a team sets (`settings`), and the rules that judge a plan (`rules`)."""
