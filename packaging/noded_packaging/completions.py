"""Completions for bash, zsh and fish from the grammar.

Words of commands and options are written into the scripts; names of images, pods and containers are
asked of the daemon when Tab is pressed, and simply missing where it does not answer.
"""

from __future__ import annotations

from noded_packaging.commands import Argument, Command

# What lists the values of an operand or option: words after `noded`, by name of the value.
QUERIES = {
    "container": "ps --all --quiet --timeout 2",
    "pod": "pods --quiet --timeout 2",
    "reference": "images ls --json --timeout 2",
    "image": "images ls --json --timeout 2",
}
# Values whose name does not say what they are, by flag.
_NAMED = {"--pod": "pod"}
# `noded images ls --json` writes one tag a line; no tag holds a quote.
_TAGS = 'sed -n \'s/^ *"\\([^" ]*[:@][^" ]*\\)",\\{0,1\\}$/\\1/p\''


def bash(top: Command) -> str:
    """The completion for bash; it needs nothing of the bash-completion package."""
    commands = list(top.all())
    lines = [
        "# Completion for bash, made from noded's command line: changes here are lost.",
        "",
        "_noded_values() {",
        '    case "$1" in',
    ]
    for kind in ("container", "pod", "image"):
        lines.append(f"        {_kinds(kind)}) {_query(kind)} ;;")
    lines += ["    esac", "}", "", "_noded() {", "    local cur prev path word values", "    COMPREPLY=()"]
    lines += ["    cur=${COMP_WORDS[COMP_CWORD]}", "    prev=${COMP_WORDS[COMP_CWORD-1]}", "    path=noded"]
    lines += ['    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do', '        case "$path $word" in']
    inner = [" ".join(command.path) for command in commands[1:]]
    lines.append("            " + " | ".join(f'"{path}"' for path in inner) + ') path="$path $word" ;;')
    lines += ["        esac", "    done", "", '    case "$path $prev" in']
    for command in commands:
        for option in command.options:
            if option.value:
                names = " | ".join(f'"{" ".join(command.path)} {flag}"' for flag in option.flags)
                lines.append(f"        {names}) {_bash_value(option)}; return ;;")
    lines += ["    esac", '    case "$path" in']
    for command in commands:
        lines += [f'        "{" ".join(command.path)}")', "            if [[ $cur == -* ]]; then"]
        flags = " ".join(flag for option in command.options for flag in option.flags)
        lines.append(f'                mapfile -t COMPREPLY < <(compgen -W "{flags}" -- "$cur")')
        lines += [
            "            else",
            f"                {_bash_operand(command)}",
            "            fi",
            "            ;;",
        ]
    lines += ["    esac", "}", "", "complete -F _noded noded"]
    return "\n".join(lines) + "\n"


def _bash_operand(command: Command) -> str:
    if command.commands:
        words = " ".join(each.path[-1] for each in command.commands)
        return f'mapfile -t COMPREPLY < <(compgen -W "{words}" -- "$cur")'
    return _bash_value(command.operands[0]) if command.operands else ":"


def _bash_value(argument: Argument) -> str:
    if argument.choices:
        return f'mapfile -t COMPREPLY < <(compgen -W "{" ".join(argument.choices)}" -- "$cur")'
    if argument.completes == "files":
        return 'mapfile -t COMPREPLY < <(compgen -f -- "$cur"); compopt -o filenames 2>/dev/null'
    if _object(argument):
        values = f"values=$(_noded_values {_object(argument)})"
        return f'{values}; mapfile -t COMPREPLY < <(compgen -W "$values" -- "$cur")'
    return ":"


def zsh(top: Command) -> str:
    """The completion for zsh: one function for each command, with descriptions."""
    lines = [
        "#compdef noded",
        "# zsh completion for noded. Made from its command line: changes here are lost.",
        "",
    ]
    lines += ["_noded_values() {", "    local -a values", '    case "$1" in']
    for kind in ("container", "pod", "image"):
        lines.append(f'        {_kinds(kind)}) values=("${{(@f)$({_query(kind)})}}") ;;')
    lines += ["    esac", '    compadd -- "${values[@]}"', "}", ""]
    for command in top.all():
        lines += [f"{_function(command)}() {{"]
        specs = [_zsh_option(option) for option in command.options]
        if command.commands:
            specs += ["'1:command:->command'", "'*::arguments:->arguments'"]
        else:
            specs += [_zsh_operand(operand) for operand in command.operands]
        if command.commands:
            lines += ["    local context state state_descr line", "    typeset -A opt_args"]
        lines += ["    _arguments -S \\", *(f"        {spec} \\" for spec in specs)]
        lines[-1] = lines[-1].removesuffix(" \\")
        if command.commands:
            lines += ["    case $state in", "        command)", "            local -a commands=("]
            lines += [
                f"                {_quoted(f'{each.path[-1]}:{each.help}')}" for each in command.commands
            ]
            lines += [
                "            )",
                "            _describe command commands",
                "            ;;",
                "        arguments)",
            ]
            lines += ["            case $words[1] in"]
            lines += [f"                {each.path[-1]}) {_function(each)} ;;" for each in command.commands]
            lines += ["            esac", "            ;;", "    esac"]
        lines += ["}", ""]
    lines.append('_noded "$@"')
    return "\n".join(lines) + "\n"


def _function(command: Command) -> str:
    return "_" + "_".join(part.replace("-", "_") for part in command.path)


def _zsh_option(option: Argument) -> str:
    flags = option.flags
    names = f"{{{','.join(flags)}}}" if len(flags) > 1 else flags[0]
    excluded = f"({' '.join(flags)})" if len(flags) > 1 else ""
    text = f"[{_zsh_text(option.help)}]"
    if option.value:
        text += f":{_zsh_text(option.value)}:{_zsh_action(option)}"
    if len(flags) > 1:
        return f"{_quoted(excluded)}{names}{_quoted(text)}"
    return _quoted(names + text)


def _zsh_operand(operand: Argument) -> str:
    number = "*" if operand.nargs in ("*", "+") or isinstance(operand.nargs, int) else ""
    return _quoted(f"{number}:{_zsh_text(operand.value)}:{_zsh_action(operand)}")


def _zsh_action(argument: Argument) -> str:
    if argument.choices:
        return f"({' '.join(argument.choices)})"
    if argument.completes == "files":
        return "_files"
    return f"_noded_values {_object(argument)}" if _object(argument) else " "


def _zsh_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def fish(top: Command) -> str:
    """The completion for fish."""
    lines = ["# Completion for fish, made from noded's command line: changes here are lost.", ""]
    lines += ["function __noded_values", "    switch $argv[1]"]
    for kind in ("container", "pod", "image"):
        names = " ".join(_kinds(kind).split(" | "))
        lines += [f"        case {names}", f"            {_query(kind)}"]
    lines += ["    end", "end", ""]
    # Whether the words so far that are no options begin with exactly this command.
    known = " ".join(_quoted(" ".join(command.path[1:])) for command in top.all() if len(command.path) > 1)
    lines += [
        "function __noded_at",
        "    set -l path",
        "    for word in (commandline -opc)[2..]",
        '        if contains -- (string trim -- "$path $word") ' + known,
        "            set path $path $word",
        "        end",
        "    end",
        '    test "$path" = "$argv"',
        "end",
        "",
        "complete -c noded -f",
    ]
    for command in top.all():
        at = f"-n {_quoted(' '.join(['__noded_at', *command.path[1:]]))}"
        for each in command.commands:
            lines.append(f"complete -c noded {at} -a {each.path[-1]} -d {_quoted(each.help)}")
        for argument in command.arguments:
            lines.append(f"complete -c noded {at} {_fish_argument(argument)}")
    return "\n".join(lines) + "\n"


def _fish_argument(argument: Argument) -> str:
    words = []
    for flag in argument.flags:
        words.append(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}")
    if argument.flags and argument.help:
        words.append(f"-d {_quoted(argument.help)}")
    if argument.flags and argument.value:
        words.append("-r")
    if argument.choices:
        words.append(f"-a {_quoted(' '.join(argument.choices))}")
    elif argument.completes == "files":
        words.append("-F")
    elif _object(argument):
        words.append(f"-a {_quoted(f'(__noded_values {_object(argument)})')}")
    elif not argument.flags:
        words.append("-f")
    return " ".join(words)


def _object(argument: Argument) -> str:
    """The key of `QUERIES` for the values of an argument, "" when nothing lists them."""
    named = next((_NAMED[flag] for flag in argument.flags if flag in _NAMED), argument.completes)
    return named if named in QUERIES else ""


def _kinds(kind: str) -> str:
    """Names of values that the same query lists, as a pattern of a shell."""
    return " | ".join(name for name, query in QUERIES.items() if query == QUERIES[kind])


def _query(kind: str) -> str:
    call = f"noded {QUERIES[kind]} 2>/dev/null"
    return f"{call} | {_TAGS}" if "--json" in call else call


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
