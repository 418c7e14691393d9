raise "raised at load"
