"""`durian plan`: what a training run takes on TPUs, from the TPU compiler."""
