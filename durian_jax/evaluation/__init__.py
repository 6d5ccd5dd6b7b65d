"""How good a model is: metrics, the transfer benchmark with exact answers, and the demo."""
