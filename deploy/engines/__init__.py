"""What runs a static model: one file an engine, behind one interface."""
