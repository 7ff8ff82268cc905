"""Phrases of an invented crowd and the grammar that puts them together."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

_SLOT = re.compile(r"\{(\w+)\}")

# A slot in braces is filled from the list of that name, or by the caller (coin, price, level, percent).
PHRASES: Mapping[str, Sequence[str]] = {
    "bullish": (
        "{lead}{coin} {holds_up}, {because_up}{tail_up}",
        "{lead}{coin} {holds_up}{tail_up}",
        "{because_up_start} {i_am} {adding} {coin} {when}{tail_up}",
        "{adding_start} {more} {coin} {when}, {because_up}{tail_up}",
        "{coin} to {level} {when_target}, {conviction}{tail_up}",
        "{lead}{target_up} for {coin} is {level}{tail_up}",
        "not {selling} a single {coin} {until} {level}{tail_up}",
        "{people} {ignoring} {coin} {down_here} will {regret} {when_target}{tail_up}",
        "{lead}up {percent} on my {coin} {position} {when}{tail_up}",
        "the {timeframe} chart of {coin} looks {great}: {pattern_up}{tail_up}",
        "{coin} {pattern_up} on the {timeframe}, {target_up} {level}{tail_up}",
    ),
    "bearish": (
        "{lead}{coin} {breaks_down}, {because_down}{tail_down}",
        "{lead}{coin} {breaks_down}{tail_down}",
        "{dumped} my {coin} {position} {when}, {because_down}{tail_down}",
        "{lead}{target_down} for {coin} is {level}{tail_down}",
        "down {percent} on {coin} {when}, {pain}{tail_down}",
        "{people} {hoping} {coin} {bounces} are {wrong}{tail_down}",
        "the {timeframe} chart of {coin} looks {awful}: {pattern_down}{tail_down}",
        "{coin} {pattern_down} on the {timeframe}, {careful}{tail_down}",
        "shorting {coin} {here}, {because_down}{tail_down}",
        "{because_down_start} and {coin} holders {cope}{tail_down}",
    ),
    "neutral": (
        "{coin} {sideways} around {price} {when}",
        "{question_start} {coin} {question_end}",
        "{coin} 24h volume {numbers}, price {price}",
        "can somebody explain how {explain} works on {coin}?",
        "{lead}watching {level} on {coin}, no trade {until_then}",
        "moved some {coin} {to_place} {when}, fees were {fees}",
        "{event} {when_event}, {coin} at {price}",
        "what do you all use to {do_thing} your {coin}?",
        "{coin} funding {numbers}, open interest {numbers}, {timeframe} close in {hours}h",
        "writing up my notes on {explain} for {coin}, {link_soon}",
    ),
    "spike": (
        "{alarm} {coin} {spike_news}{tail_spike}",
        "{coin} {spike_news}, {spike_reaction}{tail_spike}",
        "{spike_reaction} {coin} {spike_news}{tail_spike}",
        "wait, {coin} {spike_news}?? {spike_reaction}{tail_spike}",
        "{percent} in {minutes} minutes on {coin}, {spike_reaction}{tail_spike}",
        "who else just {bought_in} {coin}? {spike_reaction}{tail_spike}",
        "{coin} {volume_word} is {insane} right now, {price} and {climbing}{tail_spike}",
        "my feed is only {coin}: {spike_news}, {spike_reaction}{tail_spike}",
    ),
    "bot": (
        "{bot_call} {coin} {bot_claim} {bot_action} {bot_link}",
        "{bot_action} {bot_link} {coin} {bot_claim}",
        "{coin} signal: entry {price} target {level} {bot_action} {bot_link}",
        "{bot_claim} with {coin}, {bot_action} {bot_link}",
    ),
    # One text a campaign; copies differ in the small edits of `vary`.
    "campaign": (
        "{coin} is the most undervalued project of this cycle and the team just announced something huge, load up "
        "before everybody else finds out, target {level} this month",
        "I turned a small account into a house with {coin} and now I share every trade for free, follow me and reply "
        "YES, next entry is {price}",
        "Massive airdrop for all {coin} holders is live today, connect your wallet at the official page and claim "
        "your share before the pool is empty",
        "Insiders are quietly buying {coin} ahead of the biggest listing of the year, do not be the one who hears "
        "about it at {level}",
    ),
    # What channels repeat.
    "shill": (
        "{bot_call} {coin} {bot_claim}. entry {price} target {level}. {bot_action} {bot_link}",
        "{coin} VIP group is open: {bot_claim}, {bot_claim}. {bot_action} {bot_link}",
    ),
    "chatter": (
        "gm {people_here}, {smalltalk}",
        "{smalltalk}",
        "{i_am} {tired} of {annoyance}",
        "does anybody {offtopic_question}?",
        "{smalltalk}, {smalltalk}",
    ),
    "foreign": (
        "buenos días, {coin} está en {price}, {spanish}",
        "{coin} {spanish}",
        "hoy {coin} {spanish}, objetivo {level}",
    ),
    "body": (
        "{i_am} in this since {year} and {lesson}. {thanks}",
        "Position is about {percent} of my {portfolio}. {lesson_start}. {thanks}",
        "Background: {lesson}. {thanks}",
        "",
    ),
    "lead": (
        "",
        "",
        "",
        "",
        "ok so ",
        "ngl ",
        "imo ",
        "honestly, ",
        "update: ",
        "fwiw ",
        "lol ",
        "just in case: ",
        "hm, ",
    ),
    "holds_up": (
        "just reclaimed {level}",
        "is holding {level} like a champ",
        "looks ready to run",
        "keeps making higher lows",
        "broke out above {level} on real volume",
        "bounced hard off {level}",
        "is up {percent} {when} and still looks cheap",
        "is the strongest chart out there",
        "ripped through {level}",
        "is waking up",
    ),
    "because_up": (
        "{whales} are accumulating",
        "supply on exchanges keeps shrinking",
        "funding is still flat so there is room",
        "devs keep shipping",
        "the ETF flows are wild",
        "active addresses at a yearly high",
        "bears have no fuel left",
        "the upgrade goes live {when_target}",
        "institutions are only getting started",
        "staking keeps eating the float",
        "sellers look exhausted",
    ),
    "because_up_start": (
        "seeing how {whales} buy,",
        "with fees this low",
        "after that {timeframe} close",
        "as long as {level} holds",
    ),
    "tail_up": (
        "",
        "",
        "",
        "",
        " 🚀",
        " 📈",
        " 🔥🔥",
        ", bullish",
        " lfg",
        ", wagmi",
        ". few understand",
        " 💎🙌",
        ", send it",
        "!",
    ),
    "i_am": ("I'm", "i am", "im", "we are", "my group is"),
    "adding": ("adding", "stacking", "loading up on", "averaging into", "rotating into"),
    "adding_start": ("bought", "picked up", "grabbed", "scooped", "just market bought"),
    "more": ("some more", "a bag of", "another chunk of", "{percent} more", "a little"),
    "selling": ("selling", "trimming", "giving up"),
    "until": ("before", "until", "below"),
    "when": (
        "today",
        "this morning",
        "tonight",
        "right now",
        "this week",
        "since yesterday",
        "in the last hour",
        "overnight",
    ),
    "when_target": (
        "this month",
        "by friday",
        "next week",
        "before year end",
        "this quarter",
        "sooner than you think",
        "in a few weeks",
    ),
    "conviction": (
        "screenshot this",
        "calling it now",
        "not even close to the top",
        "easy",
        "mark my words",
        "i'd bet the car on it",
    ),
    "target_up": ("next stop", "my target", "fair value", "the first target", "measured move"),
    "target_down": (
        "next stop",
        "my downside target",
        "the level nobody wants to hear",
        "realistic support",
        "the measured move down",
    ),
    "people": ("everyone", "people", "folks", "all those", "the ones", "traders"),
    "people_here": ("everyone", "frens", "fam", "chat", "legends", "y'all"),
    "ignoring": ("ignoring", "fading", "sleeping on", "laughing at"),
    "down_here": ("down here", "at {price}", "under {level}", "at these prices"),
    "regret": ("regret it", "fomo back in", "buy higher", "cry about it"),
    "position": ("position", "bag", "long", "spot bag", "swing"),
    "timeframe": ("4h", "daily", "weekly", "hourly", "15m", "monthly", "3 day"),
    "great": ("amazing", "so clean", "primed", "beautiful", "super strong", "constructive"),
    "awful": ("awful", "sick", "like a cliff", "heavy", "toppy", "really weak"),
    "pattern_up": (
        "golden cross",
        "ascending triangle breaking up",
        "bull flag",
        "cup and handle",
        "higher high confirmed",
        "bullish divergence",
        "inverse head and shoulders",
    ),
    "pattern_down": (
        "death cross",
        "lower high again",
        "bear flag",
        "head and shoulders",
        "bearish divergence",
        "rejected at {level}",
        "lost the 200 MA",
    ),
    "whales": ("whales", "big wallets", "funds", "smart money", "long term holders"),
    "breaks_down": (
        "just lost {level}",
        "got rejected at {level} again",
        "is bleeding out",
        "dumped {percent} {when}",
        "can't even hold {level}",
        "looks terrible here",
        "keeps making lower highs",
        "is getting crushed",
        "is rolling over",
        "nuked through {level}",
    ),
    "because_down": (
        "{whales} are unloading on retail",
        "no buyers left",
        "exchange inflows are exploding",
        "the hype is gone",
        "unlock coming {when_target}",
        "liquidations are cascading",
        "macro is ugly",
        "devs went quiet",
        "volume dried up completely",
        "the hack news is not priced in",
    ),
    "because_down_start": (
        "another exploit",
        "more insider selling",
        "the lawsuit is back",
        "outflows again {when}",
        "leverage getting wiped",
    ),
    "tail_down": (
        "",
        "",
        "",
        "",
        " 📉",
        " 🩸",
        ", bearish",
        ". ngmi",
        " smh",
        ", get out while you can",
        ". rekt",
        " 💀",
        "...",
    ),
    "dumped": ("sold", "dumped", "closed", "cut", "got stopped out of"),
    "pain": ("pain", "this hurts", "worst trade of the year", "never again", "should have sold at {level}"),
    "hoping": ("hoping", "praying", "waiting for the day", "still betting that"),
    "bounces": ("bounces", "recovers", "goes back to {level}", "makes a new high"),
    "wrong": ("exit liquidity", "in for a surprise", "coping", "going to get rekt", "dreaming"),
    "careful": ("careful out there", "stay in cash", "this goes lower", "do not catch the knife", "i'm out"),
    "here": ("here", "at {price}", "from {level}", "with a stop at {level}"),
    "cope": ("still cope", "keep bleeding", "are stuck", "get diluted again", "act surprised"),
    "sideways": ("is ranging", "is chopping", "is flat", "is trading sideways", "sits", "is parked"),
    "question_start": (
        "what's happening with",
        "anybody looking at",
        "thoughts on",
        "how do you value",
        "where do you see",
    ),
    "question_end": ("at {price}?", "on the {timeframe}?", "after the news?", "for the next months?", "vs last cycle?"),
    "numbers": ("{percent} vs yesterday", "at {level}", "roughly flat", "{percent} above average", "unchanged"),
    "explain": (
        "staking",
        "the fee market",
        "the validator queue",
        "bridging",
        "self custody",
        "the governance vote",
        "rent",
    ),
    "until_then": ("until then", "before the close", "for now", "this week"),
    "to_place": (
        "to cold storage",
        "to another exchange",
        "to my hardware wallet",
        "to the other chain",
        "off the exchange",
    ),
    "fees": ("fine", "about a dollar", "a few cents", "{percent} of the amount", "ok"),
    "event": ("FOMC minutes", "CPI print", "the conference", "options expiry", "the community call", "monthly close"),
    "when_event": ("at 2pm", "in an hour", "tomorrow", "later today", "on thursday"),
    "do_thing": ("track", "store", "stake", "swap", "report taxes on", "back up"),
    "hours": ("1", "2", "3", "5", "7", "11"),
    "link_soon": ("link later", "will post it here", "feedback welcome", "part two tomorrow"),
    "alarm": ("BREAKING:", "🚨🚨", "HUGE:", "holy,", "omg", "ALERT:", "it's happening,", "just in:"),
    "spike_news": (
        "got listed on every big exchange at once",
        "spot ETF approved",
        "partnership with a top bank confirmed",
        "just broke its all time high at {level}",
        "squeezed the shorts for {percent}",
        "added to a national reserve",
        "burned {percent} of the supply",
        "announced a buyback",
        "went vertical to {price}",
        "trending number one everywhere",
    ),
    "spike_reaction": (
        "this is massive",
        "my hands are shaking",
        "i told you so",
        "nobody is short anymore",
        "we are so back",
        "price discovery now",
        "absolutely insane candle",
        "buying everything i can",
        "don't fade this",
        "shorts in shambles",
        "moon mission on",
        "{level} next",
    ),
    "tail_spike": ("", "", " 🚀🚀🚀", "!!!", " LFG", " 🔥", " 📈📈", " wow", ", unreal", " 🤯"),
    "minutes": ("3", "5", "7", "9", "12"),
    "bought_in": ("aped into", "bought", "longed", "doubled down on", "woke up to"),
    "volume_word": ("volume", "buy pressure", "order flow", "spot demand"),
    "insane": ("insane", "off the charts", "like nothing before", "record breaking"),
    "climbing": ("climbing", "no resistance above", "still going", "bids everywhere"),
    "bot_call": ("VIP ALERT", "FREE SIGNAL", "🔥 HOT 🔥", "Don't miss", "100x GEM"),
    "bot_claim": (
        "guaranteed {percent} profit",
        "next 100x",
        "pump in {minutes} minutes",
        "our members made {percent} today",
        "double your deposit",
    ),
    "bot_action": (
        "join now",
        "DM us",
        "claim your airdrop",
        "sign up here",
        "limited slots, click",
        "follow and retweet",
    ),
    "bot_link": ("https://t.co/{code}",),
    "smalltalk": (
        "coffee first then charts",
        "quiet session so far",
        "who is at the meetup tonight",
        "weekend price action is always weird",
        "my screen time is embarrassing",
        "finally touched some grass",
        "good space yesterday, thanks for hosting",
        "the new app update is much faster",
        "risk management is all there is",
        "this market tests your patience",
    ),
    "tired": ("tired", "so tired", "done", "sick"),
    "annoyance": (
        "spam replies",
        "fake giveaways",
        "engagement farmers",
        "paid groups",
        "price predictions without reasons",
    ),
    "offtopic_question": (
        "know a good tax tool",
        "have a podcast to recommend",
        "run a node at home",
        "remember the 2017 icos",
        "have trouble logging in",
    ),
    "spanish": (
        "sigue subiendo muy fuerte",
        "no me gusta nada",
        "parece que va a caer",
        "lateral todo el día",
        "qué locura",
    ),
    "year": ("2013", "2016", "2017", "2020", "2021", "last winter"),
    "lesson": (
        "learned to take profit the hard way",
        "only use money I can lose",
        "never touch leverage anymore",
        "keep most of it in cold storage",
    ),
    "lesson_start": (
        "Took me two cycles to learn patience",
        "I read everything I could find first",
        "My average entry is around {price}",
    ),
    "portfolio": ("portfolio", "net worth", "crypto", "savings"),
    "thanks": ("What would you do?", "Curious what you think.", "Not advice.", "Change my mind.", "Cheers!"),
}

# Where prices start, US dollars: of the right order, nothing more.
PRICES: Mapping[str, float] = {
    "BTC": 96_000, "ETH": 3_300, "SOL": 230, "XRP": 1.4, "BNB": 640, "DOGE": 0.4, "ADA": 0.95, "TRX": 0.2, "LINK": 17.5,
    "AVAX": 42, "DOT": 8.5, "LTC": 95, "BCH": 510, "SHIB": 0.000025, "UNI": 11, "NEAR": 6.6, "ATOM": 8.2, "XLM": 0.48,
    "XMR": 160, "APT": 12.3,
}  # fmt: skip
_ENDINGS = ("", "", " 🚀", " 🔥", "!", "!!", " 💰", " #crypto", " 👀", ".", " 🚀🚀")
_SWAPS = (
    ("huge", "big"),
    ("everybody", "everyone"),
    ("do not", "don't"),
    ("quietly ", ""),
    ("today", "now"),
    ("free", "FREE"),
)


def expand(rng: random.Random, slot: str, given: Mapping[str, str]) -> str:
    """Return a random phrase of a slot with every slot in it filled, those in ``given`` by the caller's words."""
    template = rng.choice(PHRASES[slot])
    return _SLOT.sub(lambda found: given.get(found[1]) or expand(rng, found[1], given), template)


def vary(rng: random.Random, text: str) -> str:
    """Return a text with the small edits by which copies of a campaign differ."""
    if rng.random() < 0.3:
        text = text.replace(*rng.choice(_SWAPS))
    if rng.random() < 0.2:
        text = text[0].lower() + text[1:]
    return text + rng.choice(_ENDINGS)


def casual(rng: random.Random, text: str) -> str:
    """Return a text as hurried people type it: now and then without capitals, apostrophes or a final point."""
    draw = rng.random()
    if draw < 0.25:
        return text[:1].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
    if draw < 0.35:
        return text.replace("'", "")
    if draw < 0.40:
        return text.upper()
    return text
