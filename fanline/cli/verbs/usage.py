"""The help texts of the verbs. A verb has exactly the options that its help describes (`read_words`)."""

PROGRESS = """Usage: fanline progress [OPTIONS] [PERCENT|DONE/TOTAL] [MESSAGE]

  Report the progress of the task that this script is a part of.

    fanline progress 40 "compiling"
    fanline progress 3/10 --stage link
    fanline progress --message "waiting for the database"

  For scripts started by `fanline run`. After the first call, progress is no
  longer read from the script's output.

  Exit codes:
    0  reported
    2  wrong usage, or an invalid value
    3  there is no task to report to: start the script with `fanline run`

Arguments:
  [PERCENT|DONE/TOTAL]  As in 40, 40% or 3/10.
  [MESSAGE]             What is happening.

Options:
  --message TEXT  The message, where there is no number before it.
  --stage TEXT    The part of the work, as in compile.
  -h, --help      Show this message and exit.
"""

LOG = """Usage: fanline log [OPTIONS] [TEXT]...

  Show viewers a line, or each line of stdin, without printing it here. Viewers
  see what a script prints in any case.

    fanline log "cache is cold, this takes longer"
    make 2>&1 | tee build.log | grep --line-buffered warning | fanline log

  Exit codes:
    0  reported
    2  wrong usage
    3  there is no task to report to: start the script with `fanline run`

Arguments:
  [TEXT]...  The line. [default: stdin]

Options:
  --stderr    Show it as a line of stderr, in red.
  -h, --help  Show this message and exit.
"""

ASK = """Usage: fanline ask [OPTIONS] QUESTION

  Ask the viewers of the task, wait for the first answer, and print it: yes,
  no, the option, or the text.

    fanline ask "Deploy?" && ./deploy.sh
    color=$(fanline ask "Which one?" --option blue --option green)
    name=$(fanline ask "Name of the release?" --input --deadline 10m)

  Viewers answer with `fanline tail task:ID --approve`, `--reject` or `--input
  TEXT`, or wherever else they watch the task. The question is withdrawn if
  this command is interrupted. Questions asked at once are put one by one.

  Exit codes:
    0    approved, chosen or answered
    1    rejected
    2    wrong usage
    3    there is no task to ask for, or it has ended: start the script with
         `fanline run`
    4    nobody answered before the deadline
    130  Ctrl-C

Arguments:
  QUESTION  What viewers are asked.

Options:
  --option TEXT    An answer to choose from; may be repeated.
  --input          Ask for text.
  --deadline TIME  How long to wait: 90, 15m, 1h. [default: forever]
  --json           Print `approved`, `value` and `by` as a JSON object, whatever
                   the answer is.
  -h, --help       Show this message and exit.
"""

RESULT = """Usage: fanline result [OPTIONS] VALUE

  Set the result that viewers see when the task ends, in place of the
  command's exit code.

    fanline result build-42.tar.gz
    fanline result '{"artifact": "build-42.tar.gz", "bytes": 40123}'
    jq -n '{tests: 12}' | fanline result -

  Exit codes:
    0  reported
    2  wrong usage, or a value that is too large
    3  there is no task to report to: start the script with `fanline run`

Arguments:
  VALUE  JSON, or otherwise plain text; - reads stdin.

Options:
  -h, --help  Show this message and exit.
"""

USAGE = {"progress": PROGRESS, "log": LOG, "ask": ASK, "result": RESULT}
