/** Every command's help ends with examples that work; help for a command that is none is refused like the command itself. */
import { type Command, CommanderError } from 'commander'

export function withExamples(command: Command, examples: readonly string[]): Command {
  return command.addHelpText(
    'after',
    `\nExamples:\n${examples.map((example) => `  $ ${example}`).join('\n')}`,
  )
}

/** Commander's own `help` command takes a word that it does not know for a wish to see everything, and more words for nothing. */
export function strictHelp(command: Command): void {
  if (command.commands.length === 0) return
  for (const family of command.commands) strictHelp(family)
  command
    .helpCommand(false)
    .command('help')
    .argument('[command...]')
    .description('display help for command')
    .action((words: readonly string[]) => {
      let at = command
      for (const word of words) {
        const next = at.commands.find((known) => known.name() === word || known.aliases().includes(word))
        if (next === undefined)
          throw new CommanderError(1, 'commander.unknownCommand', `error: unknown command '${word}'`)
        at = next
      }
      at.help()
    })
}
