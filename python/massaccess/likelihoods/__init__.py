"""What the front end says of the noiseless samples: each gives E[z|y] and Var[z|y]."""
