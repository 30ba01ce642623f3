"""From a file to pixels: plan, noise, sampler, networks, cache."""
