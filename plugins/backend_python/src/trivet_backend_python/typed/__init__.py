"""The short way to write a model: a function, or a class that is called, with typed arrays in and out."""
