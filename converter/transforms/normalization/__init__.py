"""Layer normalizations without factor and offset, which layers behind them take in."""
