"""The accuracy budget: the cheapest placement whose measured loss of accuracy stays within a bound."""
