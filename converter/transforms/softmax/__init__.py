"""Softmaxes that are divided behind the product that reads them."""
