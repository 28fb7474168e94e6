"""Models of |c1|²: which features of the frames enter, and how a pair is made of them."""
