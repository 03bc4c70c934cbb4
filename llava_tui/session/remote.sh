# The other end of `llava-tui watch ssh://HOST/PATH`: tells what a session's folder holds, and what is new in it.
#
# POSIX sh, with ls, tail, head, cat, wc and sleep. It comes over standard input and is written nowhere. After it come,
# a line each: the path, the seconds between two looks, and what has arrived already (" name=bytes"), ended by an empty
# line. Then each line that begins with a brace is appended to control.jsonl. When standard input ends, this ends.
#
# It says frames: "kind name offset length", as many bytes, and a line with a dot alone, which tells whether the file
# still held that much when it was read. llava_tui/session/frames.py reads them.

LC_ALL=C
export LC_ALL
umask 077
nl='
'

say() { # kind, name, text
    printf '%s %s 0 %s\n%s\n.\n' "$1" "$2" "$(($(printf %s "$3" | wc -c)))" "$3"
}

refuse() { # reason, text
    say refuse "$1" "$2"
    exit 0
}

printf 'llava-tui-watch 1\n'
IFS= read -r where
IFS= read -r pause
had=
while IFS= read -r line && [ -n "$line" ]; do
    had="$had $line"
done

# --- which session ---

case $where in
'/~') where=$HOME ;;
'/~/'*) where=$HOME/${where#'/~/'} ;;
esac
[ "${where##*/}" = session.json ] && where=${where%/*}
if ! [ -f "$where/session.json" ]; then
    [ -e "$where" ] && refuse bare "$where"
    part=${where##*/}
    folder=${where%/*}
    if [ -z "$folder" ]; then
        # A name alone: among the user's own sessions, looked for as llava-tui does there.
        for folder in "${LLAVA_TUI_SESSIONS-}" "$HOME/sessions" "${XDG_DATA_HOME:-$HOME/.local/share}/llava-tui/sessions"; do
            [ -n "$folder" ] && [ -d "$folder" ] && break
        done
    fi
    [ -d "$folder" ] || refuse none "$where"
    found=
    dated=
    ids=
    count=0
    for one in "$folder"/*; do
        [ -f "$one/session.json" ] || continue
        id=${one##*/}
        if [ "$part" = @latest ]; then
            # Ids begin with the time, and come in its order.
            case $id in
            [0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]-*) dated=$one ;;
            *) found=$one ;;
            esac
        else
            case $id in
            *"$part"*)
                found=$one
                count=$((count + 1))
                [ "$count" -le 6 ] && ids="$ids$id$nl"
                ;;
            esac
        fi
    done
    [ "$count" -gt 1 ] && refuse many "$ids"
    found=${dated:-$found}
    [ -n "$found" ] || refuse unknown "$folder"
    where=$found
fi
CDPATH='' cd "$where" 2>/dev/null && [ -r session.json ] || refuse closed "$where"
say path - "$(pwd -P)"

# --- the way back ---

main=$$
exec 3<&0 </dev/null # what runs in the background would otherwise get /dev/null for its input
(
    while IFS= read -r line; do
        case $line in
        '{'*) ;;
        *) continue ;;
        esac
        torn=
        [ -s control.jsonl ] && [ "$(tail -c 1 control.jsonl | wc -l)" -eq 0 ] && torn=$nl
        printf '%s%s\n' "$torn" "$line" 2>/dev/null >>control.jsonl || echo 'cannot write control.jsonl' >&2
    done
    kill "$main" 2>/dev/null
) <&3 >/dev/null &
reader=$!
exec 3<&-

leave() {
    kill "$reader" 2>/dev/null
    exit 0
}

if [ -w control.jsonl ] || { ! [ -e control.jsonl ] && [ -w . ]; }; then
    say control - yes
else
    say control - no
fi

# --- what is new ---

how=age
if command -v flock >/dev/null; then how=flock; elif [ -r /proc/locks ]; then how=proc; fi

# Sets held: 1 or 0 by the lock; where it cannot be asked f or s, whether a stream was written within a minute.
worker() {
    if ! [ -e lock ]; then
        held=0
        return
    fi
    held=s
    if [ -r lock ]; then
        case $how in
        flock)
            flock -n -s 9 9<lock
            case $? in
            0) held=0 ;;
            1) held=1 ;;
            esac
            ;;
        proc)
            held=0
            set -- $(ls -dlniL lock)
            while read -r _ kind _ access _ place _; do
                case $kind$access$place in FLOCKWRITE*":$1") held=1 ;; esac
            done </proc/locks
            ;;
        esac
    fi
    if [ "$held" = s ] && [ -n "$(find . -name '*.jsonl' -mmin -1 2>/dev/null)" ]; then
        held=f
    fi
}

sleep 0.01 2>/dev/null || pause=1 # only whole seconds here
seen=
beat=0
while :; do
    if [ "$beat" -le 0 ]; then
        IFS=' '
        worker # first: it says its last word before it lets go
    fi
    set +f
    listing=$(ls -dlniL session.json notes.json events*.jsonl telemetry*.jsonl 2>/dev/null)
    set -f
    # The fields of a line: inode, mode, links, owner, group, size, three of time, name.
    now=
    for name in session.json notes.json; do # in this order: what follows belongs to the first
        case $listing$nl in
        *" $name$nl"*) ;;
        *) continue ;;
        esac
        line=${listing%%" $name"*}
        line=${line##*"$nl"}
        # Documents are replaced, not changed: a new one has another inode.
        case $seen in
        *"$nl$line $name$nl"*) ;;
        *)
            text=$(cat "$name" 2>/dev/null && echo .) || continue
            say whole "$name" "${text%.}"
            ;;
        esac
        now="$now$nl$line $name$nl"
    done
    seen=$now
    case $now in
    *" session.json$nl"*) ;;
    *)
        say gone - ''
        leave
        ;;
    esac
    IFS=$nl
    for line in $listing; do
        IFS=' '
        set -- $line
        name=${line##* }
        case $2$name in
        *[!A-Za-z0-9._+@-]*) continue ;;
        -*.jsonl) ;;
        *) continue ;;
        esac
        [ -f "$name" ] || continue # a line of ls may be made up by a file's name
        size=$6
        offset=0
        rest=
        case $had in
        *" $name="*)
            rest=${had#*" $name="}
            offset=${rest%% *}
            ;;
        esac
        if [ "$size" -lt "$offset" ]; then
            say shrunk "$name" ''
            leave
        fi
        [ "$size" -gt "$offset" ] || continue
        while [ "$offset" -lt "$size" ]; do
            length=$((size - offset))
            [ "$length" -gt 1048576 ] && length=1048576
            printf 'part %s %s %s\n' "$name" "$offset" "$length"
            tail -c "+$((offset + 1))" "$name" 2>/dev/null | head -c "$length"
            printf '\n.\n' || leave
            offset=$((offset + length))
        done
        case $rest in
        *' '*) rest=" ${rest#* }" ;;
        *) rest= ;;
        esac
        had="${had%%" $name="*}$rest $name=$offset"
    done
    if [ "$beat" -le 0 ]; then
        beat=5
        printf 'lock - 0 1\n%s\n.\n' "$held" || leave
    fi
    beat=$((beat - 1))
    if [ "$held" = 0 ]; then
        beat=0
        sleep 2 >/dev/null 2>&1
    else
        sleep "$pause" >/dev/null 2>&1
    fi
done
