"""What the benchmarks compare with, where no package has it."""
