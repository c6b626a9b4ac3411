"""The models that come with the project: what they are asked, how they are trained, how they are scored."""
