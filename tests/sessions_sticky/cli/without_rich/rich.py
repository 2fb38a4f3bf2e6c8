raise ImportError("rich is not installed")
