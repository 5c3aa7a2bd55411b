import { randomInt } from "node:crypto";

const FIRST =
  "amber bold brisk calm clear deep fair firm gentle keen late lucky mild quiet swift wild".split(
    " ",
  );
const SECOND =
  "anvil basin birch brook cedar delta ember field grove harbor heron hoof moss ridge stone vale".split(
    " ",
  );
const COUNTRIES =
  "at be ca ch cz de dk ee es fi fr gr hu ie is it jp kr lt lu lv mv nl no nz pl pt ro se si sk".split(
    " ",
  );

function pick(words: readonly string[]): string {
  return words[randomInt(words.length)] ?? "";
}

/** Three words, the last a country, as the reference names each start of a server: `wild-hoof-mv`. */
export function inventServerName(): string {
  return [pick(FIRST), pick(SECOND), pick(COUNTRIES)].join("-");
}
