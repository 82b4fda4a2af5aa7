"""How far chips fall short of their peaks, as measured: efficiency profiles with date, place and intervals."""
