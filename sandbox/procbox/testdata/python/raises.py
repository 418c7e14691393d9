raise RuntimeError("raised at load")
