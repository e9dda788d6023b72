"""How the tools of this field round: a grammar of honest merges, replays, and which of them a file shows."""
