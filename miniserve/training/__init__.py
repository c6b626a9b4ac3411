"""The models shipped with the project: what they are asked, how they are trained, how they are scored."""
