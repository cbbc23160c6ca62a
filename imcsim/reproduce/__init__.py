"""Reproduction of a paper: does imcsim give the printed numbers, and where not, why?"""
