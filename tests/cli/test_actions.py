"""What the commands do is tested by command line, in test_commands; here, that table and functions belong together."""

import inspect

from bertjax.cli import actions
from bertjax.cli.commands import COMMANDS


def test_every_action_is_that_of_one_command_and_takes_what_the_command_gives():
    functions = {f for _, f in inspect.getmembers(actions, inspect.isfunction) if f.__module__ == actions.__name__}
    assert functions == {command.run for command in COMMANDS.values()}
    of_config = {"read": {"config"}, "kept": {"config", "origin"}, "shown": {"resolved"}, "none": set()}
    for command in COMMANDS.values():
        takes = command.takes
        given = {flag.name for flag in takes.flags} | ({"words"} if takes.words else set()) | of_config[takes.config]
        assert given == set(inspect.signature(command.run).parameters)
