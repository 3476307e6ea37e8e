"""The ways in: modules, networkx graphs, the zoo of networks, the command line."""
