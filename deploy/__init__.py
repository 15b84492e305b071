"""From a trained network to answers: static files, what they need to know, engines to run them."""
