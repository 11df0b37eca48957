"""Why our baselines on split MNIST differ from the paper's: experts trained in other ways, measured together."""
