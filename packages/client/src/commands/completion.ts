import type { Command } from "../cli/command.js";
import { completionScript, SHELLS } from "../cli/completion.js";

export const command: Command = {
  about: "Print the script that completes commands and names in a shell",
  args: [{ name: "SHELL", about: "the shell", choices: SHELLS }],
  options: {},
  notes: [
    "bash: libstorage completion bash > /etc/bash_completion.d/libstorage",
    "zsh:  libstorage completion zsh > /usr/local/share/zsh/site-functions/_libstorage",
    "fish: libstorage completion fish > ~/.config/fish/completions/libstorage.fish",
  ],
  async run({ args: [shell = ""] }) {
    process.stdout.write(completionScript(shell));
  },
};
