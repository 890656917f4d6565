"""What diffusers' pipelines do, with a bundle's models."""
