import assert from "node:assert/strict";
import { it } from "node:test";
import { commandWords, readArguments } from "./arguments.js";
import type { Command } from "./command.js";
import { UsageError } from "./usage-error.js";

const command: Command = {
  about: "",
  args: [
    { name: "A", about: "" },
    { name: "B", about: "", isOptional: true },
  ],
  options: {
    size: { type: "string", about: "" },
    opt: { type: "string", multiple: true, about: "" },
  },
  run: async () => {},
};

it("finds the words of a command among global options", () => {
  const words = (line: string): string[] => {
    const argv = line.split(" ");
    return commandWords(argv, 2).map((index) => argv[index] ?? "");
  };
  assert.deepEqual(words("-s vfs --json volume --host=x ls"), ["volume", "ls"]);
  assert.deepEqual(words("--host volume ls"), ["ls"]);
  assert.deepEqual(words("volume -- ls"), ["volume"]);
});

it("reads values, and refuses what the command does not have", () => {
  const given = readArguments(command, [
    "x",
    "--size",
    "5",
    "--opt",
    "a=1",
    "--opt",
    "b",
    "--json",
  ]);
  assert.deepEqual(given.args, ["x"]);
  assert.equal(given.text("size"), "5");
  assert.deepEqual(given.texts("opt"), ["a=1", "b"]);
  assert.equal(given.flag("json"), true);
  assert.equal(given.flag("help"), false);
  assert.equal(given.text("toString"), undefined);
  for (const argv of [[], ["a", "b", "c"], ["a", "--nope"], ["a", "--size"], [""]])
    assert.throws(() => readArguments(command, argv), UsageError, argv.join(" "));
});
