"""Who calls: the customer's side of a Call, as the CRM knows it. So far that is the lead of a number (matching.py).

Invariant: nothing here guesses or changes a lead. A number is matched exactly, in E.164 and within its account, in the
transaction that writes the Call (store/linking.py says when), and the same number always gives the same lead.
"""
