"""Group fairness and counterfactual fairness of a model."""
