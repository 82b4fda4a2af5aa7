"""What a preview says, as a team reads it on a pull request: cost, latency, guardrails, changes."""
