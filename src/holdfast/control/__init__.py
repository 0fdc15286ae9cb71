"""From a verdict to actions, with reasons. Never touches a tensor."""
