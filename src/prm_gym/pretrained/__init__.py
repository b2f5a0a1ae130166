"""A pretrained model as a checkpoint folder that every stage takes, with a smaller vocabulary where asked."""
