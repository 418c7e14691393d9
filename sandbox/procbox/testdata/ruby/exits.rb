warn "ended while it was loaded"
exit! 3
