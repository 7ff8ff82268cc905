"""The phrases of the invented crowd: so many that people hardly ever say the same twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def _any(text: str) -> Sequence[str]:
    """Return the phrases of a text that has ``|`` or a line's end between them."""
    return tuple(phrase.strip() for line in text.strip().splitlines() for phrase in line.split("|"))


# A slot in braces is filled from the list of that name, or by the caller (simulator_texts.GIVEN).
PHRASES: Mapping[str, Sequence[str]] = {
    # What people say about a coin: one sentence, often with another one behind it.
    "bullish": _any("""
        {lead}{coin} {holds_up} {when}, {because_up}{tail_up}
        {lead}{coin} {holds_up}{more_up}{tail_up}
        {because_up_start} {i_am} {adding} {coin} {when}{more_up}{tail_up}
        {adding_start} {more} {coin} {when}, {because_up}{tail_up}
        {adding_start} {money} of {coin} {occasion}{more_up}{tail_up}
        {coin} to {level} {when_target}, {conviction}{more_up}{tail_up}
        {lead}{target_up} for {coin} is {level}{more_up}{tail_up}
        not {selling} a single {coin} {until} {level}{more_up}{tail_up}
        {people} {ignoring} {coin} {down_here} will {regret} {when_target}{more_up}{tail_up}
        {lead}up {percent} on my {coin} {position} {when}{more_up}{tail_up}
        the {timeframe} chart of {coin} looks {great}: {pattern_up}{more_up}{tail_up}
        {coin} {pattern_up} on the {timeframe}, {target_up} {level}{more_up}{tail_up}
        {who} {asked} about {coin} {occasion}, {meaning_up}{tail_up}
        {lead}{because_up} and {coin} still sits at {price}{more_up}{tail_up}
        {occasion} and {coin} {holds_up}{more_up}{tail_up}
        my {coin} {position} is {number} days old and {percent} up, {feeling_up}{tail_up}
        {lead}the {timeframe} close of {coin} over {level} {says} {meaning_up}{tail_up}
        {who} sold {coin} at {level} {when_past}, {because_up} {when_past}{tail_up}
        set a {coin} bid at {level}, {feeling_up}{more_up}{tail_up}
        if {coin} holds {level} {when_target} {i_am} {adding}{more_up}{tail_up}
    """),
    "bearish": _any("""
        {lead}{coin} {breaks_down} {when}, {because_down}{tail_down}
        {lead}{coin} {breaks_down}{more_down}{tail_down}
        {dumped} my {coin} {position} {when}, {because_down}{tail_down}
        {dumped} {money} of {coin} {occasion}{more_down}{tail_down}
        {lead}{target_down} for {coin} is {level}{more_down}{tail_down}
        down {percent} on {coin} {when}, {pain}{more_down}{tail_down}
        {people} {hoping} {coin} {bounces} are {wrong}{more_down}{tail_down}
        the {timeframe} chart of {coin} looks {awful}: {pattern_down}{more_down}{tail_down}
        {coin} {pattern_down} on the {timeframe}, {careful}{more_down}{tail_down}
        shorting {coin} {here}, {because_down}{tail_down}
        {because_down_start} and {coin} holders {cope}{more_down}{tail_down}
        {who} {asked} about {coin} {occasion}, {meaning_down}{tail_down}
        {lead}{because_down} and {coin} is still at {price}{more_down}{tail_down}
        {occasion} and {coin} {breaks_down}{more_down}{tail_down}
        my {coin} {position} is {number} days old and {percent} down, {pain}{tail_down}
        {lead}the {timeframe} close of {coin} under {level} {says} {meaning_down}{tail_down}
        {who} bought {coin} at {level} {when_past}, {pain}{more_down}{tail_down}
        stop on {coin} at {level}, {careful}{more_down}{tail_down}
        if {coin} loses {level} {when_target} then {careful}{more_down}{tail_down}
    """),
    "neutral": _any("""
        {coin} {sideways} around {price} {when}{aside}
        {question_start} {coin} {question_end}{aside}
        {coin} 24h volume {numbers}, price {price}{aside}
        can somebody explain how {explain} works on {coin}? {who} {asked} {occasion}
        can somebody explain {explain} on {coin}? {reading}
        {lead}watching {level} on {coin}, no trade {until_then}{aside}
        moved {number} {coin} {to_place} {when}, fees were {fees}{aside}
        {event} {when_event}, {coin} at {price}{aside}
        what do you all use to {do_thing} your {coin}? {reading}
        what do you use to {do_thing} {coin}? {who} {swears_by} {tool}
        {coin} funding {numbers}, open interest {numbers}, {timeframe} close in {number} minutes
        writing up my notes on {explain} for {coin}, {number} pages so far, {link_soon}
        {who} {asked} about {coin} {occasion}, {no_idea}
        {tool} for {coin}: {verdict}{aside}
        {lead}{explain} on {coin} took {number} minutes {when_past}, {verdict}
        {number} days since I last looked at {coin}, {sideways_now}{aside}
        is {explain} on {coin} worth it with {money}? {reading}
        {coin} {timeframe} range is {level} to {price}, {until_then} {no_idea}
        sent {money} in {coin} to {who}, fees were {fees}, {verdict}
        reading about {explain} on {coin} {occasion}, {no_idea}
    """),
    "spike": _any("""
        {alarm} {coin} {spike_news}{more_spike}{tail_spike}
        {coin} {spike_news}, {spike_reaction}{more_spike}{tail_spike}
        {spike_reaction} {coin} {spike_news}{more_spike}{tail_spike}
        wait, {coin} {spike_news}?? {spike_reaction}{more_spike}{tail_spike}
        {percent} in {number} minutes on {coin}, {spike_reaction}{more_spike}{tail_spike}
        who else just {bought_in} {coin}? {spike_reaction}{more_spike}{tail_spike}
        {coin} {volume_word} is {insane} right now, {price} and {climbing}{more_spike}{tail_spike}
        my feed is only {coin}: {spike_news}, {spike_reaction}{more_spike}{tail_spike}
        {who} just called me about {coin}, {spike_reaction}{more_spike}{tail_spike}
        was {occasion_doing} and {coin} {spike_news}{more_spike}{tail_spike}
        {bought_in} {coin} with {money}, {spike_reaction}{more_spike}{tail_spike}
        {alarm} {number} messages about {coin} in {number} chats, {spike_reaction}{tail_spike}
    """),
    "chatter": _any("""
        gm {people_here}, {smalltalk}
        {smalltalk}, {smalltalk}
        {smalltalk}. {i_am} {tired} of {annoyance}
        {i_am} {tired} of {annoyance}, {smalltalk}
        {i_am} {tired} of {annoyance} and {annoyance} {when}
        does anybody {offtopic_question}? {who} {asked} {occasion}
        does anybody {offtopic_question}? {reading}
        gm {people_here}, {who} {asked} {occasion}
        gn {people_here}, {number} charts {when} and {no_idea}
        {lesson}, {who} {asked} {occasion}
        gm
    """),
    "foreign": _any("""
        buenos días, {coin} está en {price}, {spanish}
        {coin} {spanish}, {percent} {spanish_when}
        hoy {coin} {spanish}, objetivo {level}
        {spanish_when} compré {money} en {coin}, {spanish}
        alguien más con {coin} en {price}? {spanish} {spanish_when}
    """),
    "body": (
        "{i_am} in this since {year} and {lesson}. {thanks}",
        "Position is about {percent} of my {portfolio}. {lesson_start}. {thanks}",
        "Background: {lesson}. {reading}. {thanks}",
        "{lesson_start}, {reading}. {thanks}",
        "",
    ),
    # What often follows.
    "more_up": (
        *[""] * 3,
        ", {because_up}",
        ". {because_up}, {feeling_up}",
        ". {who} {swears_by} {tool} and says {level} {when_target}",
        ", {who} thinks I am crazy",
        ". {adding_start} {money} more {occasion}",
        " and {because_up}. {number} days in, {feeling_up}",
        ", {meaning_up}",
        ". last time this happened {who} {missed} {percent}",
        ". {reading}, {feeling_up}",
        ". {conviction}, {because_up} {when}",
        " while {people} {ignoring} it {occasion}",
    ),
    "more_down": (
        *[""] * 3,
        ", {because_down}",
        ". {because_down}, {careful}",
        ". {who} still {swears_by} {tool} and hopes for {level}",
        ", {who} told me {when_past}",
        ". {dumped} {money} more {occasion}",
        " and {because_down}. {number} days of this, {pain}",
        ", {meaning_down}",
        ". last time this happened {who} lost {percent}",
        ". {reading}, {careful}",
        ". {target_down} {level}, {because_down} {when}",
        " while {people} {hoping} it {bounces}",
    ),
    "more_spike": (
        *[""] * 2,
        ", {because_up}",
        ". {who} {missed} {percent}",
        ". {level} {when_target}",
        ", {number} people in my chat say the same",
        ". sold {money} of it {when_past}, {pain}",
        ". {spike_reaction}",
        " while I was {occasion_doing}",
        ". up {percent} on {money}",
    ),
    "aside": (
        *[""] * 2,
        ". {reading}",
        ", {who} {asked} {occasion}",
        ". {who} {swears_by} {tool}, {no_idea}",
        ", {smalltalk}",
        ". {no_idea}, {verdict}",
        ", {number} alerts {when} and none mattered",
        ". {tool} says {percent}, {verdict}",
        " ({number} trades {when_past}, {verdict})",
        ". {lesson}, {occasion}",
    ),
    "lead": (
        *[""] * 4, "ok so ", "ngl ", "imo ", "honestly, ", "update: ", "fwiw ", "lol ", "just in case: ", "hm, ",
        "tbh ", "hot take: ", "day {number}: ", "reminder that ", "{who} was right, ", "unpopular but ", "so ",
    ),
    "who": _any("""
        my brother | my dad | my sister in law | a friend from work | my barber | the guy at the gym | my old boss
        a taxi driver | my neighbour | my roommate | half my team | my accountant | an old classmate | my wife
        my cousin
        somebody at the bakery | my dentist | the intern | a colleague in sales | my landlord | my mum | an uber driver
        my chess club | the group chat | our plumber | a guy on the train | my ex | my nephew
        a stranger at the airport
    """),
    "asked": _any("""
        asked | asked me | would not shut up | kept asking | wanted to know everything | texted me
        sent me {number} messages
        made a joke | started an argument | wrote a whole essay | called me twice | had questions | told everyone
    """),
    "meaning_up": _any("""
        I take that as a sign | that is usually early | so we are still early | make of that what you will, I bought
        that is when I add | the trend has not even started | up from here | this is how it begins | and I like it
        I did not sell {number} | this leg goes to {level} | no reason to sell | and nobody is positioned
        I am staying in
    """),
    "meaning_down": _any("""
        I take that as a top signal | that is usually late | so I sold {number} | make of that what you will, I am out
        that is when I leave | the trend is over | down from here | this is how it ends | and I don't like it
        this leg goes to {level} | no reason to hold | and everybody is trapped | I am staying in cash
        told him to sell
    """),
    "says": _any("tells me | says | means | proves | confirms to me | whispers | can only mean | was the sign, "),
    "feeling_up": _any("""
        sleeping well | not worried at all | patience pays | feeling good about this one | happy with that
        could not be calmer
        best decision of {year} | let it ride | no stress | in no hurry | worth the wait | still smiling | zero regrets
    """),
    "missed": _any("""
        missed | slept through | sold before | laughed at | caught only half of | got all of | did not see
    """),
    "occasion": _any("""
        at breakfast | over lunch | at the dentist | during the meeting | on the train | at the wedding
        in line for coffee
        before bed | after work | at the school run | at halftime | in the gym | at the bus stop | between two calls
        while cooking | at the airport | at the family dinner | walking the dog | on my lunch break | at 3am
        on the night shift
        at the laundromat | before the kids woke up | after the match | in the elevator | at the barber
        during the power cut
    """),
    "occasion_doing": _any("""
        asleep | at the dentist | in a meeting | cooking | driving | at the gym | walking the dog | in the shower
        on a plane
        putting the kids to bed | watching the match | doing my taxes | mowing the lawn
        in the queue at the post office
    """),
    "reading": _any("""
        the docs lost me at page {number} | the thread has {number} answers and none helps | {who} {swears_by} {tool}
        read {number} posts about it and know less | found one video, {number} minutes long | the faq is from {year}
        my notes from {year} are useless | been at it for {number} minutes | I have {money} in it, so I should know
        only found an article from {year} | the last guide I saw was {verdict} | asked {who}, {no_idea}
        still on page {number} of the whitepaper | tried it with {money} first | {tool} did not help
    """),
    "swears_by": _any("""
        swears by | uses | likes | hates | left | moved to | recommends | laughs at | pays for | trusts
    """),
    "tool": _any("""
        a hardware wallet | a spreadsheet | a paper notebook | three monitors | an old laptop | the desktop wallet
        his own node
        the browser extension | a multisig | a steel plate | some script from {year} | the mobile app
        a mempool explorer
        two exchanges | limit orders only | a trading journal | moving averages | the order book
        price alerts at {level}
        an rss feed | the block explorer | a raspberry pi | cold storage | a calendar reminder
        a seed phrase in the bank
    """),
    "verdict": _any("""
        works for me | would not do it again | fine I guess | could be worse | easier than in {year} | took forever
        no complaints
        {percent} better than before | not for beginners | good enough | surprisingly smooth | never again | a bit slow
        cheaper than I thought | cost me {money} | saved me {money} | confusing at first | does the job | meh
    """),
    "no_idea": _any("""
        no opinion yet | still thinking about it | could go either way | I said I don't know | I just wait
        my answer took {number} minutes | nothing to add | we will see | ask me {when_target} | I sent a link
        I have no edge here | coin flip | not my strong side | happy to be corrected | no strong view
    """),
    "sideways_now": _any("""
        nothing happened | same price | {percent} of nothing | still {price} | did I miss anything | quiet
    """),
    "when_past": _any("""
        last week | yesterday | in {year} | {number} days ago | {number} hours ago | last month | on monday
        on sunday night
        before the move | back in spring | a year ago | the day before | at new year | {number} minutes ago
    """),
    # Up.
    "holds_up": _any("""
        just reclaimed {level} | is holding {level} like a champ | looks ready to run | keeps making higher lows
        is waking up
        broke out above {level} on real volume | bounced hard off {level} | is up {percent} {when} and still looks cheap
        is the strongest chart out there | ripped through {level} | refuses to go under {level}
        ate {money} of asks and kept going
        has {number} green candles in a row | turned {level} into support | is up {percent} against everything else
        took {level} without a fight | shook off that news in {number} minutes | outperforms by {percent} again
        held {level} for {number} hours | is climbing quietly | printed {percent} on no news
    """),
    "because_up": _any("""
        {whales} are accumulating | supply on exchanges keeps shrinking | funding is still flat so there is room
        devs keep shipping | the ETF flows are wild | active addresses at a yearly high | bears have no fuel left
        the upgrade goes live {when_target} | institutions are only getting started | staking keeps eating the float
        sellers look exhausted | {whales} bought {number} million {when} | fees are down {percent}
        new wallets up {percent}
        dips get bought in {number} minutes | shorts are paying {percent} | {number} days of inflows in a row
        retail is not even here | open interest reset {when} | the order book is thin up to {level}
        {number} commits {when} | bids are stacked at {level} | every pullback is shallower
        {whales} pulled {percent} off exchanges
    """),
    "because_up_start": _any("""
        seeing how {whales} buy, | with fees this low | after that {timeframe} close | as long as {level} holds
        with {level} reclaimed
        after {number} red days | since {whales} came back | with {percent} of supply staked
        after what {who} showed me
    """),
    "tail_up": (
        *[""] * 8, " 🚀", " 📈", " 🔥🔥", ", bullish", " lfg", ", wagmi", ". few understand", " 💎🙌", ", send it",
        "!", " 🤝", " 🐂", ", let's go", " 😎", ", easy",
    ),
    "i_am": _any("I'm | i am | im | we are | my group is | my wife and I are | some of us are"),
    "adding": _any("""
        adding | stacking | loading up on | averaging into | rotating into | bidding | buying | building a bag of
    """),
    "adding_start": _any("""
        bought | picked up | grabbed | scooped | just market bought | added | finally got | sniped | limit filled on
        put in for
    """),
    "more": _any("""
        some more | a bag of | another chunk of | {percent} more | a little | {number} | {money} of | the last {number}
        another {money} of
    """),
    "selling": _any("selling | trimming | giving up | lending out | swapping"),
    "until": _any("before | until | below | under"),
    "when": _any("""
        today | this morning | tonight | right now | this week | since yesterday | in the last hour | overnight
        since monday
        in {number} minutes | after lunch | during the asia session | at the open | since the weekend
        for {number} hours now
        just now | this afternoon | between two meetings
    """),
    "when_target": _any("""
        this month | by friday | next week | before year end | this quarter | sooner than you think | in a few weeks
        by summer
        in {number} days | before christmas | after the next halving talk | within {number} hours | this weekend
        by easter
    """),
    "conviction": _any("""
        screenshot this | calling it now | not even close to the top | easy | mark my words | i'd bet the car on it
        bookmark this
        said so at {level} | would put {money} on it | my whole plan hangs on it | {number} percent sure
    """),
    "target_up": _any("""
        next stop | my target | fair value | the first target | measured move | my model says the level | next magnet
    """),
    "target_down": _any("""
        next stop | my downside target | the level nobody wants to hear | realistic support | the measured move down
        next magnet
        where I would look again | first real bid | my worst case
    """),
    "people": _any("""
        everyone | people | folks | all those | the ones | traders | bears | tourists | colleagues | friends
    """),
    "people_here": _any("""
        everyone | frens | fam | chat | legends | y'all | {number} lurkers | night shift | early birds
    """),
    "ignoring": _any("ignoring | fading | sleeping on | laughing at | shorting | mocking | overlooking | selling"),
    "down_here": _any("""
        down here | at {price} | under {level} | at these prices | after {number} red days | {percent} off the high
    """),
    "regret": _any("""
        regret it | fomo back in | buy higher | cry about it | chase it at {level} | explain themselves | come back
    """),
    "position": _any("position | bag | long | spot bag | swing | stack | entry | trade | ladder"),
    "timeframe": _any("4h | daily | weekly | hourly | 15m | monthly | 3 day | 2h | 12h | 5m"),
    "great": _any("""
        amazing | so clean | primed | beautiful | super strong | constructive | better than in {year} | healthy | ready
        textbook
    """),
    "awful": _any("""
        awful | sick | like a cliff | heavy | toppy | really weak | broken | worse than in {year} | tired | ugly
    """),
    "pattern_up": _any("""
        golden cross | ascending triangle breaking up | bull flag | cup and handle | higher high confirmed
        bullish divergence
        inverse head and shoulders | {number} higher lows | falling wedge resolved | retest of {level} done
        three white soldiers
    """),
    "pattern_down": _any("""
        death cross | lower high again | bear flag | head and shoulders | bearish divergence | rejected at {level}
        lost the 200 MA
        {number} lower highs | rising wedge broken | failed retest of {level} | double top at {level}
    """),
    "whales": _any("""
        whales | big wallets | funds | smart money | long term holders | old wallets | miners | market makers | desks
    """),
    # Down.
    "breaks_down": _any("""
        just lost {level} | got rejected at {level} again | is bleeding out | dumped {percent} {when}
        can't even hold {level}
        looks terrible here | keeps making lower highs | is getting crushed | is rolling over | nuked through {level}
        sliced through {number} bids | has {number} red candles in a row | turned {level} into resistance
        gave back {percent} in {number} minutes | underperforms by {percent} again | fades every bounce
        lost {percent} on no news
        cannot catch a bid over {level} | is down {percent} against everything else
    """),
    "because_down": _any("""
        {whales} are unloading on retail | no buyers left | exchange inflows are exploding | the hype is gone
        unlock coming {when_target} | liquidations are cascading | macro is ugly | devs went quiet
        volume dried up completely
        the hack news is not priced in | {whales} sold {number} million {when} | fees are up {percent}
        new wallets down {percent}
        bounces get sold in {number} minutes | longs are paying {percent} | {number} days of outflows in a row
        the order book is empty down to {level} | everybody is already long | {number} million in longs under {level}
        the last {number} rallies failed | {whales} sent {percent} to exchanges
    """),
    "because_down_start": _any("""
        another exploit | more insider selling | the lawsuit is back | outflows again {when} | leverage getting wiped
        {number} million unlocked | a rug next door | {percent} gone {when} | bad numbers {occasion}
    """),
    "tail_down": (
        *[""] * 8, " 📉", " 🩸", ", bearish", ". ngmi", " smh", ", get out while you can", ". rekt", " 💀",
        "...", " 🫠", " 🐻", ", ouch", " 😬",
    ),
    "dumped": _any("""
        sold | dumped | closed | cut | got stopped out of | gave up on | market sold | unloaded | panic sold
    """),
    "pain": _any("""
        pain | this hurts | worst trade of the year | never again | should have sold at {level} | cost me {money}
        my own fault
        {number} weeks of gains gone | I knew it {when_past} | no words | told nobody yet | deleting the app
        lesson paid with {money}
    """),
    "hoping": _any("""
        hoping | praying | waiting for the day | still betting that | telling me | certain that | writing that
    """),
    "bounces": _any("""
        bounces | recovers | goes back to {level} | makes a new high | turns {when_target} | is fine at {price}
    """),
    "wrong": _any("""
        exit liquidity | in for a surprise | coping | going to get rekt | dreaming | late by {number} weeks
        down {percent} already
        the ones who pay | funny
    """),
    "careful": _any("""
        careful out there | stay in cash | this goes lower | do not catch the knife | i'm out | wait for {level}
        no bids from me
        I would not touch it over {level} | flat since {when_past} | stops at {level} | hedged with {money}
        sit on your hands
    """),
    "here": _any("""
        here | at {price} | from {level} | with a stop at {level} | with {money} | {number}x, small | again {when}
    """),
    "cope": _any("""
        still cope | keep bleeding | are stuck | get diluted again | act surprised | are down {percent}
        wait for {level}
    """),
    # Neither.
    "sideways": _any("""
        is ranging | is chopping | is flat | is trading sideways | sits | is parked | has been stuck {number} hours
        idles | drifts
        moves {percent} a day | hovers
    """),
    "question_start": _any("""
        what's happening with | anybody looking at | thoughts on | how do you value | where do you see
        anyone else tracking
        what is your plan for | who trades | how much of your stack is | {who} {asked}, what about
    """),
    "question_end": _any("""
        at {price}? | on the {timeframe}? | after the news? | for the next months? | vs last cycle? | with {money}?
        over {number} days?
        under {level}? | {when_target}? | compared to {year}? | before the {event}?
    """),
    "numbers": _any("""
        {percent} vs yesterday | at {level} | roughly flat | {percent} above average | unchanged | down {percent}
        up {percent} {when}
    """),
    "explain": _any("""
        staking | the fee market | the validator queue | bridging | self custody | the governance vote | rent | slashing
        restaking
        account abstraction | the mempool | light clients | gas estimation | the burn | inflation | finality
        sequencer fees
        a liquid staking token | the treasury vote | key rotation | multisig recovery | watch-only wallets | batching
        dust
    """),
    "until_then": _any("""
        until then | before the close | for now | this week | {when_target} | until {level} | for {number} hours
    """),
    "to_place": _any("""
        to cold storage | to another exchange | to my hardware wallet | to the other chain | off the exchange | to {who}
        to a multisig | to a new address
    """),
    "fees": _any("""
        fine | about a dollar | a few cents | {percent} of the amount | ok | {number} cents | less than in {year}
        {money}
    """),
    "event": _any("""
        FOMC minutes | CPI print | the conference | options expiry | the community call | monthly close | jobs report
        the vote
        earnings of the big ones | the dev call | the fork | the {timeframe} close
    """),
    "when_event": _any("""
        at 2pm | in an hour | tomorrow | later today | on thursday | in {number} minutes | {when_target} | tonight
    """),
    "do_thing": _any("""
        track | store | stake | swap | report taxes on | back up | bridge | lend | inherit | insure | split | time
        average into
    """),
    "link_soon": _any("""
        link later | will post it here | feedback welcome | part two tomorrow | {no_idea} | {who} proofreads
    """),
    # A spike.
    "alarm": _any("""
        BREAKING: | 🚨🚨 | HUGE: | holy, | omg | ALERT: | it's happening, | just in: | wow, | guys, | what, | ok WHAT,
    """),
    "spike_news": _any("""
        got listed on every big exchange at once | spot ETF approved | partnership with a top bank confirmed
        just broke its all time high at {level} | squeezed the shorts for {percent} | added to a national reserve
        burned {percent} of the supply | announced a buyback | went vertical to {price} | trending number one everywhere
        took out {level} in one candle | liquidated {number} million of shorts | up {percent} in {number} minutes
        did {percent} while everybody slept | through {level} like butter | named in the budget speech
        got its own futures
    """),
    "spike_reaction": _any("""
        this is massive | my hands are shaking | i told you so | nobody is short anymore | we are so back
        price discovery now
        absolutely insane candle | buying everything i can | don't fade this | shorts in shambles | moon mission on
        {level} next
        I can't type | {money} turned into a car | never seen this in {number} years | my phone is melting
        sold nothing
        it is only {when} | {who} is screaming | refreshing every {number} seconds | up {percent} on the day
        speechless
    """),
    "tail_spike": (
        *[""] * 4, " 🚀🚀🚀", "!!!", " LFG", " 🔥", " 📈📈", " wow", ", unreal", " 🤯", " 👀", "!!", " 🟢🟢",
    ),
    "bought_in": _any("""
        aped into | bought | longed | doubled down on | woke up to | market bought | chased | got filled on
    """),
    "volume_word": _any("""
        volume | buy pressure | order flow | spot demand | taker flow | open interest | search traffic
    """),
    "insane": _any("""
        insane | off the charts | like nothing before | record breaking | {number} times normal | up {percent} | absurd
    """),
    "climbing": _any("""
        climbing | no resistance above | still going | bids everywhere | {level} in sight | not slowing down
    """),
    # Small talk.
    "smalltalk": _any("""
        coffee number {number} then charts | quiet session {when} | who is at the meetup {when_target}
        price action {when} is weird
        my screen time was {number} minutes {when_past} | finally touched some grass {occasion}
        good space {when_past}, thanks for hosting
        the new app update is {verdict} | risk management is all there is, {who} says | this market tests {who} too
        {who} {swears_by} {tool} now | spent {money} on {tool} | {number} unread messages {occasion}
        deleted {number} alerts {when}
        {who} {asked} {occasion} | rain {when} and no charts | woke up {occasion}, {no_idea} | {number} tabs open {when}
        slept {number} minutes {when_past} | {tool} broke {occasion} | lost my notes {when_past}
        back from {number} days off
    """),
    "tired": _any("tired | so tired | done | sick | bored | weary"),
    "annoyance": _any("""
        spam replies | fake giveaways | engagement farmers | paid groups | price predictions without reasons
        {number} part threads
        bots in every reply | recycled charts | podcasts that run {number} minutes | drama about {tool}
        hindsight experts
        screenshots of {money} wins | leverage stories | airdrop tourists | maximalists | {year} all over again
    """),
    "offtopic_question": _any("""
        know a good tax tool | have a podcast to recommend | run a node at home | remember the {year} icos
        have trouble logging in
        still use {tool} | know a book on {explain} | work nights {when} | have {tool} to sell | live from trading
        get {number} emails a day from exchanges | go to the meetup {when_target} | keep a journal since {year}
        trust {tool}
    """),
    "spanish": _any("""
        sigue subiendo muy fuerte | no me gusta nada | parece que va a caer | lateral todo el día | qué locura
        buena entrada en {price}
        esperando {level} | demasiado riesgo | los grandes compran | casi sin volumen | yo aguanto | vendí la mitad
    """),
    "spanish_when": _any("hoy | esta semana | desde ayer | en {number} minutos | esta noche | desde {year} | este mes"),
    "year": _any("2012 | 2013 | 2014 | 2015 | 2016 | 2017 | 2018 | 2019 | 2020 | 2021 | last winter | the last cycle"),
    "lesson": _any("""
        learned to take profit the hard way | only use money I can lose | never touch leverage anymore
        keep most of it in cold storage
        lost {money} to a typo | sold too early {number} times | trust {tool} more than {who} | write every trade down
        check the address twice | never trade {occasion}
    """),
    "lesson_start": _any("""
        Took me two cycles to learn patience | I read everything I could find first | My average entry is around {price}
        Started with {money} in {year} | I lost {percent} in {year} | My first {number} trades were bad
        {who} got me into this
    """),
    "portfolio": _any("portfolio | net worth | crypto | savings | monthly pay | stack"),
    "thanks": _any("""
        What would you do? | Curious what you think. | Not advice. | Change my mind. | Cheers! | Thanks for reading.
    """),
    # Bots: giveaways, airdrops, pump groups, referral links, fake support; all names are invented.
    "bot": _any("""
        {bot_call} {outfit} gives away {money} in {coin} to {number} people, {bot_rule}, {bot_hurry} {bot_link}
        To celebrate {number}k members {outfit} sends {percent} extra on every {coin} deposit, {bot_hurry} {bot_link}
        Send {coin} and get it back twice, {outfit} event, {number} already paid {bot_link}
        {coin} airdrop by {outfit}: {number} tokens per wallet, {bot_rule} {bot_link}
        Claim {money} of free {coin}, snapshot {bot_soon}, {bot_rule} {bot_link}
        {outfit} x {coin} airdrop phase {number}, {bot_hurry}, {bot_action} {bot_link}
        {bot_call} {coin} pump {bot_soon}, {outfit} calls it first, last one did {percent} {bot_link}
        {coin} signal: entry {price} target {level} stop {percent}, {outfit} members only, {bot_action} {bot_link}
        Our {outfit} group took {percent} on {coin} {bot_past}, next call {bot_soon}, {bot_action} {bot_link}
        Stop guessing {coin}. {outfit} had {number} winning calls in a row, {bot_action} {bot_link}
        Sign up at {outfit} with code {code} and trade {coin} without fees for {number} days {bot_link}
        I get {money} a week in {coin} from {outfit}, use my link and we both get {percent} {bot_link}
        {outfit} pays {percent} a day on {coin}, no lock, {number}k users, {bot_action} {bot_link}
        Lost access to your {coin}? {outfit} helped me get {money} back in {number} hours, {bot_contact} {bot_link}
        {coin} withdrawal stuck? {outfit} support fixed mine {bot_past}, {bot_contact} {bot_link}
        Thanks to {outfit} I recovered {money} of stolen {coin}, {bot_contact} {bot_link}
        {coin} cloud mining from {money}, {outfit} pays daily, {number} days running, {bot_action} {bot_link}
        Made {money} with {coin} {bot_past} following {expert}, {bot_contact} {bot_link}
        {expert} turned {money} into {level} with {coin}, he teaches {number} more people for free {bot_link}
        {bot_call} {outfit} presale takes {coin}, stage {number} ends {bot_soon}, then {percent} more {bot_link}
    """),
    # What a channel repeats.
    "shill": (
        "🔥 {outfit} VIP 🔥 next {coin} pump {bot_soon}. Entry {price}, targets {level} and more. "
        "Last pump {percent}. {bot_action} {bot_link}",
        "{coin} signals by {expert}: {number} wins this month, {percent} average. "
        "Free trial ends {bot_soon}. {bot_action} {bot_link}",
        "{outfit} opens {number} places for its {coin} group. "
        "Deposit from {money}, {percent} a week paid out. {bot_contact} {bot_link}",
        "Register at {outfit}, verify, get {money} in {coin}. Code {code}. Withdraw at once. "
        "{bot_rule}, {bot_hurry} {bot_link}",
        "⏰ {number} minutes until the coin is named. Buy with {coin}, hold {percent}, do not sell early. "
        "{outfit} community {bot_link}",
        "{coin} holders: {outfit} airdrop is live, {number} tokens each, {bot_rule}. "
        "Support answers in {number} minutes {bot_link}",
        "Wallet problems with {coin}? {outfit} help desk, open day and night, {number}k cases solved. "
        "{bot_contact} {bot_link}",
    ),
    # One text a campaign; copies differ in the small edits of `vary`.
    "campaign": (
        "{coin} is the most undervalued project of this cycle and the team just announced something huge, load up "
        "before everybody else finds out, target {level} {when_target}",
        "I turned {money} into a house with {coin} and now I share every trade for free, follow me and reply YES, "
        "next entry is {price}",
        "Massive airdrop for all {coin} holders is live today, connect your wallet at the {outfit} page and claim your "
        "share before the pool of {number} million is empty",
        "Insiders are quietly buying {coin} ahead of the biggest listing of the year, do not be the one who hears "
        "about it at {level}",
        "{outfit} and {coin} sign a huge partnership {when_target}, everybody who sold at {price} will cry, do not "
        "miss the last entry",
        "Listen, {coin} at {price} is free money, {expert} called {level} and was right {number} times, add today and "
        "thank me later",
        "My {coin} bot on {outfit} made {percent} today, everybody can copy it for free, {number} places left, do not "
        "wait, it closes {bot_soon}",
        "Exchange reserves of {coin} are quietly going to zero, {outfit} research says {level} {when_target}, do not "
        "let them shake you out",
        "Government wallets are selling all {coin} today, {outfit} confirmed it, everybody with a brain is out at "
        "{price} already, huge dump to {level}",
        "{coin} community, today we trend: buy {number}, post this, tag everybody you know, {outfit} rewards the first "
        "{number} wallets with a huge bonus",
    ),
    "outfit": _any("""
        {name_start}{name_end} | {name_start}{name_end} {outfit_sort} | {name_start}{name_end}
        The {name_start}{name_end} {outfit_sort}
    """),
    "name_start": _any("""
        Zen | Val | Kry | Oru | Bly | Quor | Tav | Lum | Nyx | Prax | Vey | Sel | Hyx | Dra | Mor | Yel | Fyn | Gal
        Iri | Wex
    """),
    "name_end": _any("""
        trix | dora | von | lio | nary | bex | quil | matic | ora | pex | dyne | fina | vest | lux | gate | prime | ster
        ova
    """),
    "outfit_sort": _any("""
        Pro | Capital | Pump | Signals | Exchange | Finance | VIP | Trade | Labs | Club | Wallet | Desk
    """),
    "expert": _any("""
        Mr {name_start}{name_end} | Coach {name_start}{name_end} | Mrs {name_start}{name_end}
        Dr {name_start}{name_end}
    """),
    "bot_call": _any("""
        VIP ALERT | FREE SIGNAL | 🔥 HOT 🔥 | Don't miss: | 100x GEM | 🎁 | 📢 | LAST CHANCE | 🚨 | OFFICIAL:
        GOOD NEWS,
    """),
    "bot_rule": _any("""
        follow and retweet | tag {number} friends | connect your wallet | like and reply done | join the channel
        verify with {money}
        retweet and drop your address | fill the form | first {number} only | no kyc | bring {number} friends
    """),
    "bot_hurry": _any("""
        limited slots | ends {bot_soon} | only {number} left | closing soon | first come first served | {number} places
        do not sleep on it
    """),
    "bot_action": _any("""
        join now | DM us | sign up here | write to us | click | register | message the admin | come in
        start with {money}
    """),
    "bot_contact": _any("""
        contact him | write to them | DM | message the team | ask for {expert} | reach out | tell them I sent you
    """),
    "bot_soon": _any("""
        in {number} minutes | tonight | at {number} members | tomorrow | in {number} hours | at midnight UTC
        this weekend
    """),
    "bot_past": _any("""
        yesterday | last night | this week | in {number} hours | today | on our last call | in {number} days
    """),
    "bot_link": _any("https://t.co/{code}"),
}  # fmt: skip
