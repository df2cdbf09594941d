"""Evaluation of a distilled set under any protocol, network and number of seeds."""
