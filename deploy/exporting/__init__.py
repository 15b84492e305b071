"""From a trained network to a static model that is proven equal to it."""
