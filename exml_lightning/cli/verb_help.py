"""The help of the verbs that take a configuration: what they do, and commands to copy."""

CONFIGURATION = """\
Settings come from files, stacked in their order (a scenario, a strategy, a trainer), and from the options below, which
overrule them. --print_config shows the outcome; docs/command_line.md explains the rest."""

HELP_OF = {
    "fit": f"""\
Learn one ex-model from a stream of trained experts, one after the other, without their data.

The run folder (runs/SCENARIO/STRATEGY/runK, or --trainer.default_root_dir DIR) gets the finished ex-model, accuracies,
pictures and checkpoints. The same command goes on with a run that was stopped.

  exml fit -c configs/split_digits.yaml
  exml fit -c configs/split_mnist.yaml -c configs/strategies/auxiliary.yaml --data.root data --buffer.size 2000
  exml fit -c configs/from_folder.yaml --data.experts my_experts

{CONFIGURATION}""",
    "validate": f"""\
Print the accuracy of a checkpoint, or of a baseline, on each part of the test stream.

  exml validate -c configs/split_digits.yaml --ckpt_path last
  exml validate -c configs/split_digits.yaml -c configs/baselines/oracle.yaml

{CONFIGURATION}""",
    "test": f"""\
Measure the accuracy of a checkpoint, or of a baseline, on the test stream, and write test.json into the run folder.

  exml test -c configs/split_digits.yaml --ckpt_path last
  exml test -c configs/split_digits.yaml -c configs/baselines/min_entropy.yaml

{CONFIGURATION}""",
    "experts": f"""\
Train the experts of a scenario on its original data, and write them with a manifest (checkpoints/SCENARIO/runK, or
--data.experts DIR). Experts that are there are left alone; training that was stopped goes on.

  exml experts -c configs/split_mnist.yaml --data.root data
  exml experts -c configs/split_digits.yaml --data.run_id 1 --experts.epochs 20

{CONFIGURATION}""",
    "generate": f"""\
Write images made from experts, and pictures of them, without any data set: expert_K.safetensors and expert_K.png.

  exml generate --data.experts checkpoints/split_digits/run0 --generate.num_samples 50 --generate.folder look
  exml generate -c configs/split_digits.yaml -c configs/strategies/data_impression.yaml --generate.expert 0

{CONFIGURATION}""",
}
"""Of each such verb."""
