from setuptools import setup

setup(cffi_modules=["minirt/linux/_build.py:ffibuilder"])
