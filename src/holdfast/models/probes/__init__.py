"""Linear classifiers in closed form on fixed features, and model scores from them."""
