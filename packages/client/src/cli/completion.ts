/**
 * Shell completion. The scripts are short: they hand the words to `libstorage __complete`, which knows the
 * command objects, and asks the server for names.
 */
import { columns, printable } from "./columns.js";
import { commandWords } from "./arguments.js";
import { GLOBAL_OPTIONS } from "./command.js";
import type { Argument, Command, Option, ValueKind } from "./command.js";

export const SHELLS = ["bash", "zsh", "fish"] as const;

const BASH = `# bash completion for libstorage
_libstorage() {
    local cur=\${COMP_WORDS[COMP_CWORD]} line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :file) compopt -o default 2>/dev/null ;;
            :folder) compopt -o dirnames 2>/dev/null ;;
            "$cur"*) COMPREPLY+=("$(printf '%q' "$line")") ;;
        esac
    done < <(libstorage __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _libstorage libstorage
`;

const ZSH = `#compdef libstorage
# zsh completion for libstorage
_libstorage() {
    local -a found
    local line
    while IFS= read -r line; do
        case $line in
            :file) _files ;;
            :folder) _files -/ ;;
            *) found+=("$line") ;;
        esac
    done < <(libstorage __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)
    (( \${#found} )) && compadd -- "\${found[@]}"
}
if [ "$funcstack[1]" = "_libstorage" ]; then
    _libstorage "$@"
else
    compdef _libstorage libstorage
fi
`;

const FISH = `# fish completion for libstorage
function __libstorage_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (libstorage __complete -- $words[2..-1] 2>/dev/null)
        switch $line
            case :file
                __fish_complete_path (commandline -ct)
            case :folder
                __fish_complete_directories (commandline -ct)
            case '*'
                echo $line
        end
    end
end
complete -c libstorage -f -a '(__libstorage_complete)'
`;

export function completionScript(shell: string): string {
  return { bash: BASH, zsh: ZSH, fish: FISH }[shell] ?? "";
}

export interface Candidates {
  readonly words: readonly string[];
  /** What only the server or the shell can tell. */
  readonly kind: ValueKind;
}

const NOTHING: Candidates = { words: [], kind: "none" };

function optionWords(options: Readonly<Record<string, Option>>): string[] {
  return Object.keys({ ...options, ...GLOBAL_OPTIONS }).map((name) => `--${name}`);
}

function valueOf(option: Option | Argument | undefined): Candidates {
  if (option === undefined) return NOTHING;
  return { words: option.choices ?? [], kind: option.completes ?? "none" };
}

/** The option whose value the word at the end is. */
function openOption(
  before: string | undefined,
  options: Readonly<Record<string, Option>>,
): Option | undefined {
  if (before === undefined || !before.startsWith("-")) return undefined;
  return Object.entries(options).find(
    ([name, option]) =>
      option.type === "string" && (before === `--${name}` || before === `-${option.short}`),
  )?.[1];
}

/** What may stand in place of the last word. */
export function candidates(
  words: readonly string[],
  names: readonly string[],
  command: Command | undefined,
): Candidates {
  const last = words.at(-1) ?? "";
  const before = words.slice(0, -1);
  const options: Record<string, Option> = { ...GLOBAL_OPTIONS, ...command?.options };
  const open = openOption(before.at(-1), options);
  if (open !== undefined) return valueOf(open);
  if (last.startsWith("-")) return { words: optionWords(command?.options ?? {}), kind: "none" };
  const at = commandWords(before, 2).map((index) => before[index] ?? "");
  if (command === undefined) {
    const depth = at.length;
    const found = names
      .map((name) => name.split(" "))
      .filter((parts) => at.every((word, index) => parts[index] === word))
      .map((parts) => parts[depth])
      .filter((word) => word !== undefined);
    return { words: [...new Set(found)], kind: "none" };
  }
  return valueOf(openArgument(before, names, options, command));
}

function openArgument(
  before: readonly string[],
  names: readonly string[],
  options: Readonly<Record<string, Option>>,
  command: Command,
): Argument | undefined {
  const given = before.filter(
    (word, index) => !word.startsWith("-") && openOption(before[index - 1], options) === undefined,
  );
  const isTwo = given.length > 1 && names.includes(given.slice(0, 2).join(" "));
  const position = given.length - (isTwo ? 2 : 1);
  const last = command.args.at(-1);
  return command.args[position] ?? (last?.isRepeated === true ? last : undefined);
}

/** A line each; names with control characters cannot be typed anyway. */
export function candidateLines(words: readonly string[]): string {
  const plain = words.filter((word) => word !== "" && printable(word) === word);
  return plain.length === 0 ? "" : `${columns(plain.map((word) => [word]))}\n`;
}
