"""Do predictions survive changes that mean nothing?"""
