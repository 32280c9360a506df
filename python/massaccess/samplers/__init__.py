"""Samplers and solvers as plain functions: a posterior's score or denoiser in, a sample or a mean out.

What they share: ``x`` [B ...] holds one frame an index of the first axis; its entries are complex, or real parts of complex ones (then
noise has variance 1/2 an entry). ``sigmas`` fall; each is the root of the *total* variance of a complex entry's noise. ``score(x, sigma)``
is d/dx* log p of x = x0 + sigma CN(0, I) given the observation, ``denoised(x, sigma)`` its posterior mean, x + sigma**2 * score.
``on_step(i, x)`` sees the state after step i and returns true to stop there.
"""
