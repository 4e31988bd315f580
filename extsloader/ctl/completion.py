"""Completion for bash. Options come from each verb's own --help, so none can be forgotten."""

from extsloader.ctl.arguments import STATES

VERBS = (
    "status services explain candidates events timeline top wait start stop restart pause resume "
    "rescan reload verify pcr inspect plan completion"
)
"""A test holds it equal to what the parser knows."""

BASH = f"""# bash completion for extsloaderctl; load with: source <(extsloaderctl completion bash)
_extsloaderctl() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb=${{COMP_WORDS[1]}} words=
    case ${{COMP_WORDS[COMP_CWORD-1]}}:$COMP_CWORD:$verb:$word in
        --for:*) words="{" ".join(STATES)}" ;;
        --root:*|--keys:*) COMPREPLY=($(compgen -d -- "$word")); return ;;
        --socket:*|--image:*|-o:*) COMPREPLY=($(compgen -f -- "$word")); return ;;
        *:1:*) words="{VERBS}" ;;
        *:*:*:-*) words=$(extsloaderctl "$verb" --help | grep -oE -- '--[a-z]+' | sort -u) ;;
        *:*:explain:*|*:*:start:*|*:*:stop:*|*:*:restart:*|*:*:pause:*|*:*:resume:*)
            words=$(extsloaderctl services --names 2>/dev/null) ;;
        *:*:completion:*) words=bash ;;
        *:*:verify:*|*:*:inspect:*|*:*:plan:*) COMPREPLY=($(compgen -f -- "$word")); return ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o filenames -F _extsloaderctl extsloaderctl"""
