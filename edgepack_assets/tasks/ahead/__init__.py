"""What was made ahead of its step, held until that step takes it. Nothing here knows a task.

Who begins it: start_child.py and start_environment.py when the run begins, pictures.py and packages/build.py between
its steps.
"""
