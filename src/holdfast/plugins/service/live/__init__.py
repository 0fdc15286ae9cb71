"""A challenger beside the model in service: who answers, what is compared, who takes over."""
